"""What tests share: stand-ins, tiny models, servers and runs."""
