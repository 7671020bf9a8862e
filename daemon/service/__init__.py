"""The daemon as a service: signals, roles (leader, standby), what it serves over its whole life, and its drain."""
