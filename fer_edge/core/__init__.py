"""What every room builds on: errors, labels, preprocessing, bundles, metrics and files. Imports no other room."""
