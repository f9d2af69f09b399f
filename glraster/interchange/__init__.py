"""What other programs read: STAC items, QGIS styles, and models as ONNX."""
