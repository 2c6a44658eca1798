from rollout_plugin import run
from sample_sidecar import Sample

run(Sample)
