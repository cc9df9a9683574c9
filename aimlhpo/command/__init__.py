"""Any program as an objective: its command line, its output, its endings; and what scripts call from inside one."""
