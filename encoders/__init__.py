"""Media -> Span: audio, image, video."""
