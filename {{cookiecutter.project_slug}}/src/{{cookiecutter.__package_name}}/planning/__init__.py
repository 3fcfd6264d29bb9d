"""The `plan` command: what a layout needs of machines that are not there."""
