// What map3d.js takes of Mol*.
export { PluginContext } from "molstar/lib/mol-plugin/context.js";
export { PluginConfig } from "molstar/lib/mol-plugin/config.js";
export { RawData, ParseCcp4 } from "molstar/lib/mol-plugin-state/transforms/data.js";
export { VolumeFromCcp4 } from "molstar/lib/mol-plugin-state/transforms/volume.js";
export { VolumeRepresentation3D } from "molstar/lib/mol-plugin-state/transforms/representation.js";
