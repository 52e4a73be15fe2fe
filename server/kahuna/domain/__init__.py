"""The pure rules: functions of their arguments, which use no clock, socket or database."""
