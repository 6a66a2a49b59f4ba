"""What a scrape sees: the table of metrics, the rendering of the exposition, and the web app that serves it."""
