"""Many bots below one directory: each start gets a work directory of its own, which is removed when nobody
claims it any more.
"""

from swarmcg.drone.names import abbreviate_bot_id
from swarmcg.drone.starter import DroneStarter

__all__ = ["DroneStarter", "abbreviate_bot_id"]
