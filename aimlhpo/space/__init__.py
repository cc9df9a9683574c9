"""The search space: which parameters there are, which values they have, and where the values go.

Pure data and functions that every process may use; optuna is imported only where one of its distributions is asked for.
May import errors and objective. In reading order: parameter_types (the registry of types) with distributions (how
values are stored), model_paths (the model config), search_space (all of it together, and the grid), constraints.
"""
