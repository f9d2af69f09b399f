"""A synthetic landscape seen from the air: plan, paint and light. Used by `make_scene.py` only."""
