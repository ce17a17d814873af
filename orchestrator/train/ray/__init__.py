"""Ray Train's side of a slot: its worker group (`launch`), and what a worker does (`slot`)."""
