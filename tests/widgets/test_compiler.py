"""Panels leave torch's compiler, and triton, where they are.

Their LLVM clashes with Mesa's: a process with an OpenGL window ends.
"""

import pytest

from napari_semsr.models import list_bundled_models
from tests.children import run_python

PANELS = """
import importlib, sys, time
import numpy as np
from napari.components import ViewerModel
from npe2 import PluginManifest
from qtpy.QtWidgets import QApplication
from napari_semsr.core import Micrograph, SemsrError, run
from napari_semsr.jobs.train_process import train_in_subprocess
from napari_semsr.widgets.layers import create_layer_keywords

def check(what):
    names = "torch._dynamo", "torch._inductor", "triton"
    found = [name for name in names if name in sys.modules]
    assert not found, f"{what} imports {found}"

application, viewer = QApplication([]), ViewerModel()
grey = np.random.default_rng(0).integers(0, 255, (64, 72), dtype=np.uint8)
image = Micrograph(grey, (20.0, 20.0), name="field")
viewer.add_image(grey, **create_layer_keywords(image))
found = PluginManifest.from_distribution("napari-semsr").contributions
names = {item.id: item.python_name for item in found.commands}
made = []
for item in found.widgets:
    module, _, name = str(names[item.command]).partition(":")
    made.append(getattr(importlib.import_module(module), name)(viewer))
    application.processEvents()
    check(item.display_name)
(panel,) = [one for one in made if type(one).__name__ == "EnhancePanel"]
for model in sys.argv[1:]:
    viewer.layers.selection.active = viewer.layers["field"]
    panel.model.box.value = model
    panel.run_button.click()
    while panel.is_busy:
        application.processEvents()
        time.sleep(0.01)
    assert panel.status.text().startswith("Enhanced"), panel.status.text()
    check(model)
try:
    run(train_in_subprocess({"recipe": "fine-tune", "output": "run"}))
except SemsrError as refused:
    assert "pairs" in str(refused)
check("training")
"""


@pytest.mark.broad
def test_no_panel_imports_a_compiler(tmp_path):
    run_python(PANELS, *list_bundled_models(), cwd=tmp_path)
