"""What runs inside a virtual machine: each module is a scenario, started as root below /payload."""
