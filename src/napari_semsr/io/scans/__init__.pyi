from .frames import read_frames as read_frames
