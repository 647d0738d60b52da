"""Pictures in, hints out, and scores of how well a picture follows its hint. The only place that uses OpenCV."""
