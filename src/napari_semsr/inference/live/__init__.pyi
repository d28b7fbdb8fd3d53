from .field import LiveField as LiveField
