"""Objectives: functions of a model and a batch, one number per example."""
