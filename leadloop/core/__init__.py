"""Pure decisions: no disk, no network, and no clock outside `boot_clock`."""
