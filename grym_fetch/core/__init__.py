"""The rules. Pure: nothing here awaits, opens, sleeps, draws lots or reads a clock.

Imports point one way; `tests/house/test_layers.py` holds the order.
"""
