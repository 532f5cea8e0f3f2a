"""HTTP to engine: many clients served at once by one model. The only home of the web framework."""
