"""Folders of an earlier version are still found."""

from napari_semsr.core.folders import kept_folder, user_cache_folder, user_data_folder


def test_an_old_folder_is_used_until_there_is_a_new_one(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    assert kept_folder(new, old) == new
    old.mkdir()
    assert kept_folder(new, old) == old
    new.mkdir()
    assert kept_folder(new, old) == new


def test_folders_are_the_users_own_and_bear_the_name():
    for folder in (user_data_folder(), user_cache_folder()):
        assert folder.is_absolute()
        assert "napari-semsr" in folder.parts
