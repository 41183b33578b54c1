"""STAR files of every kind that is read, in few rows, to start from."""

from __future__ import annotations

STAR_SEED = b"""
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
_rlnOddZernike #9
_rlnMagMat00 #10
1 opticsGroup1 300.000000 2.700000 0.100000 1.500000 8 2 [0.1,0,0,1] 1.0
2 "optics two" 300.000000 2.700000 0.100000 1.500000 8 2 [] 1.0

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnOpticsGroup #3
_rlnAngleRot #4
_rlnAngleTilt #5
_rlnAnglePsi #6
_rlnOriginXAngst #7
_rlnOriginYAngst #8
_rlnCoordinateX #9
_rlnCoordinateY #10
_rlnDefocusU #11
_rlnDefocusV #12
_rlnRandomSubset #13
_rlnClassNumber #14
_rlnGroupName #15
000001@stack.mrcs MotionCorr/job002/mic1.mrc 1 10.0 20.0 30.0 1.0 -1.0 100.0 200.0 12000.0 11000.0 1 1 a
2@stack.mrcs MotionCorr/job002/mic1.mrc 2 -10.0 120.0 -30.0 1.0 -1.0 101.0 200.0 1.2e4 11000.0 2 3 b
3@stack.mrcs mic2.mrc 2 0 0 0 0 0 101.0 200.0 1.2e4 11000.0 2 2 b
"""
OLD_SEED = b"""data_

loop_
_rlnImageName #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnMagnification #5
_rlnDetectorPixelSize #6
_rlnOriginX #7
_rlnDefocusU #8
1@stack.mrcs 300 2.7 0.1 33333.3 5.0 1.5 12000
2@stack.mrcs 200 2.7 0.1 33333.3 5.0 1.5 12000
"""
PIPELINE_SEED = b"""
# version 50001

data_pipeline_general

_rlnPipeLineJobCounter                       3


# version 50001

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessTypeLabel #3
_rlnPipeLineProcessStatusLabel #4
Import/job001/       None relion.importmovies  Succeeded
Refine3D/job002/     None relion.refine3d      Running

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeTypeLabel #2
_rlnPipeLineNodeTypeLabelDepth #3
Import/job001/movies.star MicrographMovieGroupMetadata.star.relion 1

data_pipeline_output_edges

loop_
_rlnPipeLineEdgeProcess #1
_rlnPipeLineEdgeToNode #2
Import/job001/ Import/job001/movies.star
"""
JOB_SEED = b"""
# version 50001

data_job

_rlnJobTypeLabel             relion.refine3d
_rlnJobIsContinue                       0
_rlnJobIsTomo                           0

data_joboptions_values

loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
   fn_img "Extract/job018/particles.star"
   ini_high 50
 do_zero_mask Yes
 other_args ""
"""
RUN_JOB_SEED = b"job_type == 5\nis_continue == false\nInput images STAR file: == a.star\nInitial low-pass filter (A): == 60\n"
MTF_SEED = b"data_mtf\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n0 1\n0.1 0.9\n0.3 0.6\n0.5 0.4\n"
SAMPLING_SEED = b"""data_sampling_general

_rlnHealpixOrder 4
_rlnSymmetryGroup D2
_rlnTiltAngleLimit -91.0
_rlnPsiStep 3.75
_rlnOffsetRange 5.335704
_rlnOffsetStep 2.2833
_rlnSamplingPerturbInstance 0.368954
_rlnSamplingPerturbFactor 0.5
_rlnHealpixOrderOriginal 2
_rlnOffsetRangeOriginal 17.7
_rlnOffsetStepOriginal 7.08
"""
_SHELLS = b"".join(b"%d %d.5 0.9 0.25 1.0\n" % (shell, 4 - shell) for shell in range(5))
MODEL_SEED = b"""data_model_general

_rlnOriginalImageSize 8
_rlnCurrentResolution 9.0624
_rlnCurrentImageSize 8
_rlnPaddingFactor 2.0
_rlnFourierSpaceInterpolator 1
_rlnPixelSize 1.5
_rlnTau2FudgeFactor 1.0
_rlnNormCorrectionAverage 0.762521
_rlnSigmaOffsetsAngst 10.427871
_rlnOrientationalPriorMode 1
_rlnSigmaPriorRotAngle 3.75
_rlnLogLikelihood 8.183295e+06
_rlnAveragePmax 0.5

data_model_classes

loop_
_rlnReferenceImage #1
_rlnClassDistribution #2
_rlnAccuracyRotations #3
_rlnAccuracyTranslationsAngst #4
_rlnEstimatedResolution #5
run_it008_half1_class001.mrc 1.0 2.335 1.5222 9.0624

data_model_class_1

loop_
_rlnSpectralIndex #1
_rlnSsnrMap #2
_rlnGoldStandardFsc #3
_rlnReferenceSigma2 #4
_rlnReferenceTau2 #5
""" + _SHELLS + b"""
data_model_groups

loop_
_rlnGroupNumber #1
_rlnGroupName #2
_rlnGroupNrParticles #3
_rlnGroupScaleCorrection #4
1 a 2 1.1
2 b 1 0.9

data_model_optics_group_1

loop_
_rlnSpectralIndex #1
_rlnResolution #2
_rlnSigma2Noise #3
0 0 1.0
1 0.08 0.9
3 0.25 0.7

data_model_optics_group_2

loop_
_rlnSpectralIndex #1
_rlnSigma2Noise #2
0 1.0

data_model_pdf_orient_class_1

loop_
_rlnOrientationDistribution #1
0.5
0.5
"""
OPTIMISER_SEED = b"""# aurefine optimiser
# --o run --auto_refine --split_random_halves --i particles.star --ref a.mrc --healpix_order 2

data_optimiser_general

_rlnOutputRootName run
_rlnModelStarFile run_it008_half1_model.star
_rlnModelStarFile2 run_it008_half2_model.star
_rlnExperimentalDataStarFile run_it008_data.star
_rlnOrientSamplingStarFile run_it008_sampling.star
_rlnCurrentIteration 8
_rlnDoSplitRandomHalves 1
_rlnAdaptiveOversampleOrder 1
_rlnAdaptiveOversampleFraction 0.999
_rlnRandomSeed 1
_rlnParticleDiameter 200.0
_rlnSolventMaskName None
_rlnBestResolutionThusFar 0.11
_rlnNumberOfIterWithoutResolutionGain 1
_rlnChangesOptimalOrientations 1.5
_rlnSmallestChangesClasses 0
_rlnIncrementImageSize 12
_rlnDoCorrectCtf 1
"""
LIST_SEED = b"x y\n1.5 2.5 3 4\n10 20 30 40\n# no\n-5,6,7,8\n"
