from napari_semsr.core import Message, OptionError, ReadError, get_error_code


def test_code_names_the_cause():
    assert get_error_code(ReadError("a.tif cannot be read.")) == "unreadable"
    assert get_error_code(OptionError("Too many.", code="too-many")) == "too-many"
    small = Message("The images are small.", "small-images")
    assert get_error_code(small) == "small-images"
    assert get_error_code(ReadError(small)) == "small-images"
    assert get_error_code(ReadError(small, code="too-small")) == "too-small"
    assert get_error_code(PermissionError(13, "no")) == "system"
    assert get_error_code(MemoryError()) == "memory"
    assert get_error_code(ValueError("x")) == "unexpected"
    assert get_error_code("A warning of another library.") == "note"
