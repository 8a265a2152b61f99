/** The functions that assembly/nn.ts exports; pointers are byte offsets, booleans are 0 or 1. */
export interface NnKernels {
  vectorExp(
    x: number,
    y: number,
    n: number,
  ): void;
  vectorTanh(
    x: number,
    y: number,
    n: number,
  ): void;
  accumulate(
    x: number,
    y: number,
    n: number,
  ): void;
  addForward(
    x: number,
    y: number,
    z: number,
    n: number,
  ): void;
  repeatRow(
    x: number,
    y: number,
    rows: number,
    columns: number,
  ): void;
  sumRows(
    x: number,
    y: number,
    rows: number,
    columns: number,
  ): void;
  rmsNormForward(
    x: number,
    w: number,
    y: number,
    inv: number,
    rows: number,
    columns: number,
    eps: number,
  ): void;
  rmsNormBackwardX(
    x: number,
    w: number,
    inv: number,
    dy: number,
    dx: number,
    rows: number,
    columns: number,
  ): void;
  normBackwardWeight(
    x: number,
    mean: number,
    inv: number,
    dy: number,
    dw: number,
    rows: number,
    columns: number,
  ): void;
  layerNormForward(
    x: number,
    gamma: number,
    beta: number,
    y: number,
    mean: number,
    inv: number,
    rows: number,
    columns: number,
    eps: number,
  ): void;
  layerNormBackwardX(
    x: number,
    gamma: number,
    mean: number,
    inv: number,
    dy: number,
    dx: number,
    rows: number,
    columns: number,
  ): void;
  geluForward(
    x: number,
    y: number,
    slopes: number,
    n: number,
    approximate: number,
  ): void;
  multiply(
    x: number,
    y: number,
    z: number,
    n: number,
  ): void;
  swigluForward(
    gate: number,
    up: number,
    y: number,
    s: number,
    n: number,
  ): void;
  swigluBackwardGate(
    gate: number,
    up: number,
    s: number,
    dy: number,
    dgate: number,
    n: number,
  ): void;
  swigluBackwardUp(
    gate: number,
    s: number,
    dy: number,
    dup: number,
    n: number,
  ): void;
  ropeForward(
    x: number,
    cos: number,
    sin: number,
    y: number,
    B: number,
    T: number,
    H: number,
    D: number,
    sign: number,
  ): void;
  softmaxRows(
    x: number,
    stride: number,
    mask: number,
    maskStride: number,
    rows: number,
    columns: number,
    scale: number,
    causal: number,
    visible: number,
  ): void;
  softmaxBackward(
    p: number,
    strideP: number,
    d: number,
    strideD: number,
    rows: number,
    columns: number,
    scale: number,
    causal: number,
    visible: number,
  ): void;
  crossEntropyForward(
    logits: number,
    labels: number,
    losses: number,
    normalizers: number,
    N: number,
    V: number,
    ignore: number,
  ): number;
  crossEntropyBackward(
    logits: number,
    labels: number,
    normalizers: number,
    dlosses: number,
    stride: number,
    factor: number,
    dlogits: number,
    N: number,
    V: number,
    ignore: number,
  ): void;
  klForward(
    logits: number,
    target: number,
    losses: number,
    normalizers: number,
    totals: number,
    N: number,
    V: number,
    scale: number,
  ): void;
  klBackward(
    logits: number,
    target: number,
    normalizers: number,
    totals: number,
    dloss: number,
    factor: number,
    dlogits: number,
    N: number,
    V: number,
    scale: number,
  ): void;
  gatherRows(
    ids: number,
    table: number,
    y: number,
    n: number,
    V: number,
    D: number,
  ): number;
  scatterAddRows(
    ids: number,
    dy: number,
    dtable: number,
    n: number,
    V: number,
    D: number,
  ): void;
  fakeQuantForward(
    x: number,
    scale: number,
    scaleStride: number,
    zero: number,
    zeroStride: number,
    y: number,
    outer: number,
    channels: number,
    inner: number,
    qmin: number,
    qmax: number,
  ): void;
  fakeQuantBackwardX(
    x: number,
    scale: number,
    scaleStride: number,
    zero: number,
    zeroStride: number,
    dy: number,
    dx: number,
    outer: number,
    channels: number,
    inner: number,
    qmin: number,
    qmax: number,
  ): void;
  fakeQuantBackwardScale(
    x: number,
    scale: number,
    scaleStride: number,
    zero: number,
    zeroStride: number,
    dy: number,
    dscale: number,
    outer: number,
    channels: number,
    inner: number,
    qmin: number,
    qmax: number,
  ): void;
  imageToPatches(
    x: number,
    patches: number,
    height: number,
    width: number,
    C: number,
    fh: number,
    fw: number,
    strides: number,
    padTop: number,
    padLeft: number,
    outHeight: number,
    outWidth: number,
  ): void;
  patchesToImage(
    patches: number,
    dx: number,
    height: number,
    width: number,
    C: number,
    fh: number,
    fw: number,
    strides: number,
    padTop: number,
    padLeft: number,
    outHeight: number,
    outWidth: number,
  ): void;
}
