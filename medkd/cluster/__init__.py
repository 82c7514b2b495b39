"""The run on a Kubernetes cluster: its objects read as plain values, said in words and figures, and changed in few ways.

The only room that knows the Kubernetes client. What a value means is decided by pure functions (`states`, `diagnosis`); what the
driver decides lies in `medkd/driver.py`.
"""
