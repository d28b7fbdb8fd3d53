import pytest

from napari_semsr.core import micrograph

PLAIN = tuple(0.1 * place for place in range(len(micrograph.FAULTS)))


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("blur", [0.0, 0.7, 3.0])
def test_what_is_told_is_read(noise, blur):
    told = micrograph.override_condition(PLAIN, noise, blur)
    assert micrograph.get_noise(told) == pytest.approx(noise, abs=1e-12)
    assert micrograph.get_blur(told) == pytest.approx(blur, abs=1e-12)
    assert len(told) == len(PLAIN)


def test_a_mirrored_field_slants_the_other_way():
    there = micrograph.mirror_condition(PLAIN)
    assert micrograph.mirror_condition(there) == PLAIN
    assert sum(a != b for a, b in zip(there, PLAIN, strict=True)) == 1
    assert sum(a == -b for a, b in zip(there[1:], PLAIN[1:], strict=True)) == 1
