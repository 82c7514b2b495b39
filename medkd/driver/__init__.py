"""The cluster's driver: releases a run's stages one after the other and says how the run is. What `medkd driver` does.

It keeps no state: everything is read again from the stages' Jobs and from what lies under the run's prefix, so that it may be
ended and started anywhere at any time. Jobs are polled by name, once a second the stage that is next, rarely the others.
`loop` decides and acts, `watch` reads progress and finds what is wrong, `view` puts both on the board, `diary` says it once.
"""

from medkd.driver.loop import drive
from medkd.driver.options import DriverOptions

__all__ = ["DriverOptions", "drive"]
