"""How mixtures follow a flow that has moved."""
