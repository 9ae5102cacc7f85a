"""The version, in one place; setup reads it without importing anything else of the package."""

VERSION = "0.1.0"
