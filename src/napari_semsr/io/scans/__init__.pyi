from .frames import open_frames as open_frames
