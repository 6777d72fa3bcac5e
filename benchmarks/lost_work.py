"""What dying machines cost, by the size of a part: ``python benchmarks/lost_work.py [SECONDS_A_PHOTO [MINUTES]]``.

A simulation: 8 machines of 8 workers each, 200,000 photos of SECONDS_A_PHOTO (0.5) on average, and each machine dies
after MINUTES (10) on average, at random and with all of its workers; another takes its place 60 s later and loads the
model in 20 s. A photo's time varies (log-normal, sigma 0.3), and a worker's speed, too (sigma 0.1). A part that was
begun on a machine that died is done again from its beginning. Prints, for parts of 16 to 4096 photos, as means of five
seeds: the work that was thrown away, the time that the run took beside that of machines that never die, how much of
the workers' time was spent waiting for the last parts, and how many files a million photos make (rows, pictures).
"""

import heapq
import sys

import numpy as np

MACHINES, WORKERS, PHOTOS = 8, 8, 200_000
UP_AGAIN, LOADING = 60.0, 20.0
SIZES = (16, 64, 256, 1024, 4096)
SEEDS = 5


def simulated(size: int, photo: float, lifetime: float, seed: int) -> tuple[float, float, float]:
    """Seconds of the workers that were lost, seconds of the run, and seconds that workers waited at its end."""
    chance = np.random.default_rng(seed)
    times = photo * chance.lognormal(-0.045, 0.3, PHOTOS)  # of mean 1, before the scale
    parts = [float(times[start : start + size].sum()) for start in range(0, PHOTOS, size)]
    speeds = chance.lognormal(0, 0.1, (MACHINES, WORKERS))
    horizon = 50 * sum(parts) / (MACHINES * WORKERS)
    deaths = [
        np.cumsum(chance.exponential(lifetime, 1 + int(3 * horizon / lifetime))) for _ in range(MACHINES)
    ]
    waiting = [(0.0, number) for number in range(len(parts))]  # when a part may be begun
    free = [(LOADING, machine, worker) for machine in range(MACHINES) for worker in range(WORKERS)]
    heapq.heapify(free)
    lost, ends = 0.0, [[0.0] * WORKERS for _ in range(MACHINES)]
    while waiting:
        now, machine, worker = heapq.heappop(free)
        available, number = heapq.heappop(waiting)
        began = max(now, available)
        death = float(deaths[machine][np.searchsorted(deaths[machine], now, side="right")])
        if death <= began:  # it died while it waited
            heapq.heappush(waiting, (available, number))
            heapq.heappush(free, (death + UP_AGAIN + LOADING, machine, worker))
            continue
        done = began + parts[number] / speeds[machine][worker]
        if done > death:
            lost += death - began
            heapq.heappush(waiting, (death, number))
            heapq.heappush(free, (death + UP_AGAIN + LOADING, machine, worker))
        else:
            ends[machine][worker] = done
            heapq.heappush(free, (done, machine, worker))
        if done > horizon:
            return float("inf"), float("inf"), float("inf")
    end = max(max(row) for row in ends)
    return lost, end, sum(end - one for row in ends for one in row)


def main() -> None:
    given = [float(argument) for argument in sys.argv[1:]]
    photo, minutes = (*given, *(0.5, 10.0)[len(given) :])
    work = PHOTOS * photo
    print("photos a part  seconds  thrown away  time longer  waiting at the end  files a million")
    for size in SIZES:
        dying = np.mean([simulated(size, photo, 60 * minutes, seed) for seed in range(SEEDS)], axis=0)
        living = np.mean([simulated(size, photo, float("1e12"), seed) for seed in range(SEEDS)], axis=0)
        lost, end, tail = dying
        print(
            f"{size:13}  {size * photo:7.0f}  {lost / work:11.1%}  {end / living[1] - 1:11.1%}  "
            f"{tail / (end * MACHINES * WORKERS):18.1%}  {2 * -(-1_000_000 // size):15,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
