"""What devices could compute: `training` measures by it, and `plan` estimates."""

PEAKS = {
    "A100": {"bf16": 312e12, "fp32": 19.5e12},
    "H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
    "H100 NVL": {"bf16": 835e12, "fp32": 60e12},
    "H100": {"bf16": 989e12, "fp32": 67e12},
    "H200 NVL": {"bf16": 835e12, "fp32": 60e12},
    "H200": {"bf16": 989e12, "fp32": 67e12},
    "GB200": {"bf16": 2500e12, "fp32": 80e12},
    "B200": {"bf16": 2250e12, "fp32": 75e12},
    "L40S": {"bf16": 362e12, "fp32": 91.6e12},
}
"""FLOP/s of one device, from NVIDIA's data sheets: without sparsity, and fp32 without TF32, as torch multiplies by
default. Of two names that fit the first one counts."""
