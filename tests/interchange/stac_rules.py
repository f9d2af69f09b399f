"""What the STAC extensions' specifications ask of their fields, as small schemas: their own are on the network."""

from __future__ import annotations

from typing import Any

_NAME = "^[0-9A-Za-z_-]+$"
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_CLASSES = {
    "type": "array",
    "minItems": 1,
    "uniqueItems": True,
    "items": {
        "type": "object",
        "required": ["value", "name", "description"],
        "properties": {
            "value": {"type": "integer"},
            "name": {"type": "string", "pattern": _NAME},
            "color_hint": {"type": "string", "pattern": "^[0-9A-Fa-f]{6}$"},
        },
    },
}
_DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]
_TENSOR = {
    "type": "object",
    "required": ["shape", "dim_order", "data_type"],
    "properties": {
        "shape": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": -1}},
        "dim_order": {"type": "array", "uniqueItems": True, "items": {"type": "string", "pattern": "^[a-z-_]+$"}},
        "data_type": {"enum": _DTYPES},
    },
}
_TASKS = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"const": "semantic-segmentation"}}

PROJECTION: dict[str, Any] = {
    "type": "object",
    "required": ["proj:code"],
    "properties": {
        "proj:code": {"type": ["string", "null"], "pattern": "^[A-Z]+:[0-9A-Za-z]+$"},
        "proj:wkt2": {"type": "string"},
        "proj:shape": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer"}},
        "proj:transform": {**_NUMBERS, "minItems": 6, "maxItems": 6},
        "proj:bbox": {**_NUMBERS, "minItems": 4, "maxItems": 4},
    },
}
PROCESSING: dict[str, Any] = {
    "type": "object",
    "required": ["processing:lineage", "processing:software"],
    "properties": {
        "processing:lineage": {"type": "string"},
        "processing:software": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
    },
}
CLASSIFICATION: dict[str, Any] = {
    "type": "object",
    "required": ["classification:classes"],
    "properties": {"classification:classes": _CLASSES},
}
MLM: dict[str, Any] = {
    "type": "object",
    "required": ["mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output", "bands"],
    "properties": {
        "mlm:name": {"type": "string", "pattern": r"^[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]$"},
        "mlm:architecture": {"type": "string", "minLength": 1},
        "mlm:framework": {"const": "PyTorch"},
        "mlm:tasks": _TASKS,
        "mlm:total_parameters": {"type": "integer", "minimum": 1},
        "mlm:accelerator": {"type": "null"},
        "mlm:hyperparameters": {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {"^[0-9a-zA-Z_.-]+$": True},
            "additionalProperties": False,
        },
        "mlm:input": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "bands", "input"],
                "properties": {
                    "bands": {"type": "array", "items": {"type": "string", "minLength": 1}},
                    "input": _TENSOR,
                    "resize_type": {"type": "null"},
                    "value_scaling": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "required": ["type", "mean", "stddev"],
                            "properties": {
                                "type": {"const": "z-score"},
                                "mean": {"type": "number"},
                                "stddev": {"type": "number"},
                            },
                        },
                    },
                },
            },
        },
        "mlm:output": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "tasks", "result"],
                "properties": {"tasks": _TASKS, "result": _TENSOR, "classification:classes": _CLASSES},
            },
        },
    },
}
