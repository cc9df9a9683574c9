"""Samplers and pruners as a configuration names them, with every keyword argument checked against its signature."""
