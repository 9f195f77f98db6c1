"""All figures of speed, one after the other, in about five minutes on two cores.   python -m tests.benchmarks

A picture and a training step against plain PyTorch and the floor, a large photo, visitors who draw at once. Leave the
machine alone meanwhile.
"""

import os

from tests.benchmarks import inference, live_latency, photo, training

for title, benchmark in (
    ("Inference", inference),
    ("Training", training),
    ("A photo of twelve megapixels", photo),
    ("The app", live_latency),
):
    print(f"\n## {title} (load average {os.getloadavg()[0]:.1f})\n", flush=True)
    benchmark.main([])
