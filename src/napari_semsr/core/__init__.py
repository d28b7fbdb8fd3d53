"""The currency and arithmetic that every other room shares; numpy, scipy, pydantic."""
