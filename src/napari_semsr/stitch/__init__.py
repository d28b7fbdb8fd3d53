"""From frames to one mosaic: flat field, neighbours, offsets, layout, fusion."""
