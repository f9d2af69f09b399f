"""Polygons of a class raster: traced band by band, stitched, simplified along shared borders, written with a style."""
