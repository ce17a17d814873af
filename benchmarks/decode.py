"""Decoding JPEGs to random-resized crops of 224 px: our path against Pillow's, the same boxes, in one run.

Images/s/core from the CPU clock of all threads, medians of rounds that take turns. Guarded by the physical limit:
Huffman decoding alone (libjpeg-turbo asked for an eighth of the size, which leaves out nearly all else). Also measures
threads against processes for the worker model, and says how many cores feed an ideal ViT-B step on an H100.

    python benchmarks/decode.py          # about three minutes, writes results/decode-cpu.json
"""

from __future__ import annotations

import io
import multiprocessing
import os
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import simplejpeg
import torch
import torchvision.transforms.functional as TF
from data_common import VIT_B_IMAGES_PER_S, check_limit, cpu_s_in_rounds, photo, save
from PIL import Image

from orchestrator.data.format.jpeg import Box
from orchestrator.data.read.decode import decode_into, random_box

SIDE_PX, NUM_IMAGES, ROUNDS = 224, 48, 9
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = {"500x375": (500, 375), "384x288": (384, 288)}


def box_of(width: int, height: int, sample_id: int) -> Box:
    return random_box(
        width, height, scale=(0.3, 1.0), aspect_ratio=(3 / 4, 4 / 3), seed=0, epoch=0, sample_id=sample_id
    )


def ours(images: list[bytes]) -> torch.Tensor:
    """The path of `BatchStream`: uint8 [B, C, H, W], channels last; normalisation happens on the device."""
    out_BHWC = np.empty((len(images), SIDE_PX, SIDE_PX, 3), np.uint8)
    for number, image in enumerate(images):
        decode_into(image, out_BHWC[number], lambda width, height, n=number: box_of(width, height, n))
    return torch.from_numpy(out_BHWC).permute(0, 3, 1, 2)


def pillow_uint8(images: list[bytes]) -> np.ndarray:
    out_BHWC = np.empty((len(images), SIDE_PX, SIDE_PX, 3), np.uint8)
    for number, image in enumerate(images):
        opened = Image.open(io.BytesIO(image)).convert("RGB")
        box = box_of(opened.width, opened.height, number)
        out_BHWC[number] = np.asarray(opened.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, box=box))
    return out_BHWC


def pillow_float(images: list[bytes]) -> torch.Tensor:
    """The published transform: RandomResizedCrop, ToTensor, Normalize."""
    rows = []
    for number, image in enumerate(images):
        opened = Image.open(io.BytesIO(image)).convert("RGB")
        left, top, right, bottom = box_of(opened.width, opened.height, number)
        crop = TF.resized_crop(opened, top, left, bottom - top, right - left, [SIDE_PX, SIDE_PX])
        rows.append(TF.normalize(TF.to_tensor(crop), MEAN, STD))
    return torch.stack(rows)


def entropy_only(images: list[bytes]) -> None:
    for image in images:
        simplejpeg.decode_jpeg(image, "GRAY", fastdct=True, fastupsample=True, min_height=1, min_width=1)


def measure(size: tuple[int, int]) -> dict[str, object]:
    images = [photo(seed, width=size[0], height=size[1]) for seed in range(NUM_IMAGES)]
    calls = {
        "ours": lambda: ours(images),
        "pillow_float32": lambda: pillow_float(images),
        "pillow_uint8": lambda: pillow_uint8(images),
        "entropy_decoding_alone": lambda: entropy_only(images),
    }
    rates = {name: NUM_IMAGES / cpu_s for name, cpu_s in cpu_s_in_rounds(calls, ROUNDS).items()}
    check_limit("ours", rates["ours"], rates["entropy_decoding_alone"], "entropy decoding alone")
    difference = np.abs(ours(images).permute(0, 2, 3, 1).numpy().astype(int) - pillow_uint8(images))
    return {
        "jpeg_kb": round(float(np.mean([len(image) for image in images])) / 1000, 1),
        "images_per_s_per_core": {name: round(rate) for name, rate in rates.items()},
        "times_pillow_float32": round(rates["ours"] / rates["pillow_float32"], 2),
        "times_pillow_uint8": round(rates["ours"] / rates["pillow_uint8"], 2),
        "share_of_limit": round(rates["ours"] / rates["entropy_decoding_alone"], 2),
        "mean_absolute_difference_levels": round(float(difference.mean()), 4),
        "largest_difference_levels": int(difference.max()),
        "cores_for_vit_b_on_h100": round(VIT_B_IMAGES_PER_S / rates["ours"], 1),
    }


def work(seed: int) -> torch.Tensor:
    torch.set_num_threads(1)
    return ours(_IMAGES)


_IMAGES = [photo(seed) for seed in range(24)]


def worker_models() -> dict[str, object]:
    """Wall-clock images/s of as many workers as cores, batches handed back to the training process."""
    workers, batches = os.cpu_count() or 1, 24
    spawn = multiprocessing.get_context("spawn")
    rates: dict[str, list[float]] = {"threads": [], "processes": []}
    with ThreadPoolExecutor(workers) as threads, ProcessPoolExecutor(workers, mp_context=spawn) as processes:
        pools: dict[str, Executor] = {"threads": threads, "processes": processes}
        for pool in pools.values():
            list(pool.map(work, range(2 * workers)))
        for _ in range(3):
            for name, pool in pools.items():
                start = time.perf_counter()
                list(pool.map(work, range(batches)))
                rates[name].append(batches * len(_IMAGES) / (time.perf_counter() - start))
    found: dict[str, object] = {name: round(max(values)) for name, values in rates.items()}
    return {"workers": workers, "images_per_s": found}


def main() -> None:
    torch.set_num_threads(1)
    results = {"image_size_px": SIDE_PX, **{name: measure(size) for name, size in SIZES.items()}}
    results["worker_model"] = worker_models()
    save("decode", results, packages=("simplejpeg", "torch", "torchvision", "pillow"))


if __name__ == "__main__":
    main()
