"""The two programs: slabwatch, the daemon, and slabwatchctl. Arguments, tables, progress bars and exit codes."""
