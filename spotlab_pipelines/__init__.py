"""SpotLab: a laboratory for models that predict EC2 Spot interruptions. Rooms are described in docs/architecture.md."""
