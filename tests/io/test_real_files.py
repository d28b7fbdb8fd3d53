"""Real files of microscopes, where they lie beside the checkout."""

import pytest

from napari_semsr.io import detect_databar, formats as registry


@pytest.mark.parametrize(
    ("name", "vendor", "size", "shape", "bar"),
    [
        ("zeiss_55p82nm.tif", "Zeiss", 55.82, (768, 1024), 0),
        ("test_tiff_Zeiss_SEM_1k.tif", "Zeiss", 2614.514, (768, 1024), 0),
        ("fei-sem-rbc.tif", "FEI", 7.70833, (1024, 1536), 70),
        ("FEI-Helios-Ebeam-16bits.tif", "FEI", 3372.4, (442, 512), 29),
    ],
)
def test_vendor_files_are_calibrated_and_cropped(
    shared_data, name, vendor, size, shape, bar
):
    path = shared_data / "vendor" / name
    info = registry.describe(path)
    assert info.vendor == vendor
    assert info.pixel_size_nm == pytest.approx((size, size), rel=1e-4)
    assert info.databar_rows == bar
    assert registry.read(path).shape == info.shape == shape


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("sem/matchmaker-jeol/JEOL_Exp_Reference_6005_T6_05.bmp", 60),
        ("sem/nanoballs/R5_K3Me3_SiO2_2-3.TIF", 61),
        ("sem/scientific-python-lectures/MV_HFV_012.jpg", 59),
        ("sem/morpholopy/a1XG3p_1000x_003.tif", 59),
        ("vendor/fei-sem-rbc.tif", 70),
        ("vendor/test_tiff_Zeiss_SEM_1k.tif", 79),
        ("vendor/zeiss_55p82nm.tif", 0),
        ("sem/karido-3d-sem/DSA_01.png", 0),
        ("sem/sem-fiber-analysis/K1.jpg", 0),
    ],
)
def test_suggest_databar_on_real_images(shared_data, name, rows):
    image = registry.read(shared_data / name, crop_databar=False)
    assert detect_databar(image.array()) == rows
