"""What the nodes of a real round spend their time on: counted within, sampled from outside (py-spy)."""
