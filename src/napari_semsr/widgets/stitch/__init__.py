"""The Stitch mosaic panel."""
