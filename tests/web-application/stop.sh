#!/bin/sh
# Takes it all away again, but for the data.
set -eu
tiny-docker rm -f front server database
tiny-docker network rm front back
