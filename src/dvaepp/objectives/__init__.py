"""Objectives: functions of a model and a batch to the terms of a bound, and to the bound, one number per example."""
