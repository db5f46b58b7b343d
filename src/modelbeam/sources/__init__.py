"""Where records come from: units of work with an identity that tells whether they changed."""
