/** Settings of other programs' caching methods, which are no plans: they are refused by the name of the method. */

interface Method {
  readonly name: string;
  /** Keys that no other JSON file of this kind has, as the method's own code and its ports call them. */
  readonly keys: RegExp;
  /** What makes a plan here in place of the settings. */
  readonly instead: string;
}

const MEASURED = "it decides while the run goes on, and a plan is made before: `smoothcc plan` with --policy smoothcache or budget";

/** Keys of the authors' code, of diffusers' `…CacheConfig`, of cache-dit, and of nodes for ComfyUI. */
const METHODS: readonly Method[] = [
  {
    name: "TaylorSeer",
    keys: /^(max_order|taylor_.*|taylorseer.*|enable_taylorseer|fresh_threshold|first_enhance|n_derivatives|use_lite_mode)$/,
    instead: "`smoothcc plan` with --policy taylorseer, --interval, --warmup and --order makes a plan of such settings",
  },
  { name: "TeaCache", keys: /^(rel_l1_thresh(old)?|tea_?cache.*|enable_teacache|coefficients)$/i, instead: MEASURED },
  {
    name: "MagCache",
    keys: /^(mag_?ratios|mag_?cache.*|max_skip_steps|retention_ratio)$/i,
    instead: "`smoothcc plan` with --policy magcache, --ratios, --delta, --k and --retention makes a plan of such settings",
  },
  {
    name: "DBCache or FBCache",
    keys: /^([FB]n_compute_blocks|residual_diff_threshold|fb_?cache.*|max_(continuous_)?cached_steps|max_warmup_steps)$/i,
    instead: MEASURED,
  },
  {
    name: "Pyramid Attention Broadcast",
    keys: /^(spatial|temporal|cross)_attention_(block_skip_range|timestep_skip_range|block_identifiers)$|^(spatial|temporal|cross)_(range|threshold)$/,
    instead: "`smoothcc plan` with --policy pab, --spatial, --temporal, --cross and --window makes a plan of such settings",
  },
  {
    name: "FORA or DeepCache",
    keys: /^(cache_interval|cache_branch_id|cache_(layer|block)_id|skip_mode)$/,
    instead: "`smoothcc plan` with --policy fora and --interval makes a plan of such settings",
  },
];

/** The method that a JSON value has settings of, with the keys that say so. The settings may be one level down. */
export function settingsIn(
  json: unknown,
): { readonly name: string; readonly keys: readonly string[]; readonly instead: string } | undefined {
  const names = [...keysOf(json), ...(isObject(json) ? Object.values(json).flatMap(keysOf) : [])];
  for (const { name, keys, instead } of METHODS) {
    const found = names.filter((key) => keys.test(key));
    if (found.length > 0) return { name, keys: found, instead };
  }
  return undefined;
}

function isObject(json: unknown): json is Readonly<Record<string, unknown>> {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

function keysOf(json: unknown): readonly string[] {
  return isObject(json) ? Object.keys(json) : [];
}
