"""The rules. Pure: nothing here awaits, opens a file, sleeps, draws a random number or reads a clock.

Imports point one way; `tests/house/test_layers.py` holds the order.
"""
